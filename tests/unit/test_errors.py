"""The error family: one exit code each, and whole after a trip through pickle (Ray sends them)."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil

import pytest

import zkml_ray
from zkml_ray.errors import ExitCode, VerificationError, ZkmlRayError


def family() -> list[type[ZkmlRayError]]:
    """Every error class of the package, wherever it is defined."""
    for module in pkgutil.walk_packages(zkml_ray.__path__, "zkml_ray."):
        importlib.import_module(module.name)
    found: list[type[ZkmlRayError]] = [ZkmlRayError]
    for cls in found:
        found += [sub for sub in cls.__subclasses__() if sub not in found]
    return found


FAMILY = family()


def filled(cls: type[ZkmlRayError]) -> ZkmlRayError:
    """An error with every keyword of its constructor set to something that is not the default."""
    values: dict[str, object] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if name == "message":
            continue
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{cls.__name__}.{name}"
        assert parameter.default is not inspect.Parameter.empty, f"{cls.__name__}.{name}"
        values[name] = True if isinstance(parameter.default, bool) else f"the {name}"
    return cls("what was wrong", **values)


def test_family_found_by_walking_the_package_is_the_whole_one() -> None:
    names = {cls.__name__ for cls in FAMILY}
    assert {"ConfigError", "StageError", "BackendError", "ClusterError", "OpeningError"} <= names


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_error_after_pickling_is_the_same_error(cls: type[ZkmlRayError]) -> None:
    error = filled(cls)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is cls
        assert str(again) == str(error) == "what was wrong"
        assert again.__dict__ == error.__dict__
        assert again.exit_code == error.exit_code


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_error_made_from_a_message_alone_has_every_attribute(cls: type[ZkmlRayError]) -> None:
    assert cls("why").__dict__.keys() == filled(cls).__dict__.keys()


@pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)
def test_error_exit_code_is_one_exactly_for_failed_verification(cls: type[ZkmlRayError]) -> None:
    assert cls.exit_code != ExitCode.OK
    is_verification = issubclass(cls, VerificationError)
    assert (cls.exit_code == ExitCode.VERIFICATION_FAILED) == is_verification


def test_exit_codes_are_the_documented_numbers() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "VERIFICATION_FAILED": 1,
        "BAD_INPUT": 2,
        "INFRASTRUCTURE": 3,
        "UNSUPPORTED_MODEL": 4,
        "INACCURATE": 5,
    }


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("InputError", 2),
        ("AccuracyError", 5),
        ("ModelFormatError", 2),
        ("DynamicShapeError", 2),
        ("RangeExceededError", 2),
        ("RunExistsError", 2),
        ("StoreError", 3),
        ("ClusterError", 3),
        ("BackendError", 3),
        ("ChunkingError", 4),
        ("UnsupportedOperatorError", 4),
    ],
)
def test_exit_code_of_an_error_class_is_its_contract(name: str, code: int) -> None:
    (cls,) = [cls for cls in FAMILY if cls.__name__ == name]
    assert cls.exit_code == code


def test_subclasses_of_verification_error_have_codes_of_their_own() -> None:
    classes = [cls for cls in FAMILY if issubclass(cls, VerificationError)]
    codes = [cls("why").code for cls in classes]
    assert len(set(codes)) == len(codes)
