"""Image networks: blocks of torchvision and timm in small sizes, and networks written out here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.exports.architecture import Architecture, collected

try:
    from torchvision import models
except RuntimeError:
    # torchvision's compiled operators do not load beside a torch without CUDA; none is used here,
    # but two must have been declared.
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import models

from timm.layers import GatedMlp
from timm.models import byobnet, convmixer, ghostnet, metaformer, mlp_mixer
from torchvision.models import efficientnet, mobilenetv3, regnet, resnet, squeezenet
from torchvision.models.googlenet import Inception
from torchvision.models.segmentation import deeplabv3

Built = tuple[nn.Module, tuple[Any, ...]]


def image(size: int, channels: int = 3) -> tuple[torch.Tensor]:
    return (torch.rand(1, channels, size, size),)


def classified(*layers: nn.Module, width: int) -> nn.Sequential:
    """Layers, a mean over all places, and a linear classifier of ten."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def lenet() -> Built:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.Tanh(),
        nn.Linear(32, 10),
    ), image(16, 1)


def lenet_relu() -> Built:
    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
            self.dense = nn.Linear(16 * 4 * 4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.max_pool2d(F.relu(self.first(x)), 2)
            x = F.max_pool2d(F.relu(self.second(x)), 2)
            return F.log_softmax(self.dense(x.view(-1, 16 * 4 * 4)), dim=1)

    return LeNet(), image(28, 1)


def alexnet() -> Built:
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d((3, 3)),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(144, 32),
        nn.ReLU(inplace=True),
        nn.Linear(32, 10),
    ), image(32)


def vgg(norm: bool) -> Built:
    layers = models.vgg.make_layers([8, "M", 16, "M", 16, 16, "M"], batch_norm=norm)
    return nn.Sequential(layers, nn.Flatten(), nn.Linear(64, 10)), image(16)


def resnet_basic() -> Built:
    down = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2, bias=False), nn.BatchNorm2d(16))
    return classified(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        resnet.BasicBlock(8, 8),
        resnet.BasicBlock(8, 16, stride=2, downsample=down),
        width=16,
    ), image(16)


def resnet_bottleneck(groups: int) -> Built:
    block = partial(resnet.Bottleneck, groups=groups, base_width=32)
    return classified(nn.Conv2d(3, 32, 3, stride=2), block(32, 8), width=32), image(16)


def resnet_preactivated() -> Built:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
            self.convs = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x
            for norm, conv in zip(self.norms, self.convs, strict=True):
                y = conv(F.relu(norm(y)))
            return x + y

    return classified(nn.Conv2d(3, 8, 3, stride=2), Block(), Block(), width=8), image(16)


def mobilenet_v1() -> Built:
    def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )

    return classified(separable(3, 8, 1), separable(8, 16, 2), width=16), image(16)


def mobilenet_v2() -> Built:
    setting = [[1, 8, 1, 1], [4, 8, 2, 2]]
    model = models.MobileNetV2(inverted_residual_setting=setting, width_mult=0.25, num_classes=10)
    return model, image(16)


def mobilenet_v3() -> Built:
    block = partial(mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1.0)
    setting = [
        block(8, 3, 8, 8, True, "RE", stride=2),
        block(8, 5, 16, 8, True, "HS", stride=1),
    ]
    return mobilenetv3.MobileNetV3(setting, last_channel=16, num_classes=10), image(16)


def efficient_net() -> Built:
    block = partial(efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
    setting = [block(1, 3, 1, 8, 8, num_layers=1), block(2, 3, 2, 8, 8, num_layers=2)]
    model = efficientnet.EfficientNet(setting, dropout=0.2, last_channel=16, num_classes=10)
    return model, image(16)


def convnext() -> Built:
    setting = [models.convnext.CNBlockConfig(8, 16, 1), models.convnext.CNBlockConfig(16, None, 1)]
    return models.ConvNeXt(setting, num_classes=10), image(16)


def inception() -> Built:
    block = Inception(8, 4, 4, 8, 4, 8, 4)
    return classified(nn.Conv2d(3, 8, 3, stride=2), block, width=24), image(16)


def densenet() -> Built:
    model = models.DenseNet(
        growth_rate=4, block_config=(2, 2), num_init_features=8, bn_size=2, num_classes=10
    )
    return model, image(32)


def squeeze_net() -> Built:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        squeezenet.Fire(8, 4, 8, 8),
        nn.Conv2d(16, 10, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ), image(16)


def shufflenet() -> Built:
    return models.ShuffleNetV2([1, 1, 1], [8, 8, 16, 16, 32], num_classes=10), image(32)


def reg_net() -> Built:
    parameters = regnet.BlockParams.from_init_params(
        depth=4, w_0=8, w_a=4.0, w_m=2.0, group_width=4, se_ratio=0.25
    )
    return models.RegNet(parameters, num_classes=10, stem_width=8), image(32)


def vision_transformer() -> Built:
    model = models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32,
        num_classes=10,
    )  # fmt: skip
    return model, image(8)


def swin_transformer() -> Built:
    model = models.SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[2], num_heads=[2], window_size=[2, 2],
        num_classes=10,
    )  # fmt: skip
    return model, image(8)


def mixer(block: type[nn.Module], **options: Any) -> Built:
    model = mlp_mixer.MlpMixer(
        num_classes=10, img_size=8, patch_size=4, num_blocks=1, embed_dim=16,
        block_layer=block, **options
    )  # fmt: skip
    return model, image(8)


def ghost_net() -> Built:
    blocks = [[[3, 8, 8, 0, 1]], [[3, 16, 8, 0.25, 2]]]
    return nn.Sequential(
        *[ghostnet.GhostBottleneck(8, m, o, k, s, se_ratio=r) for [[k, m, o, r, s]] in blocks]
    ), image(8, 8)


def unet(mode: str) -> Built:
    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList(
                [nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)]
            )
            self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
            self.thin = nn.Conv2d(8, 4, 1)
            self.merge, self.last = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            top = F.relu(self.down[0](x))
            low = F.relu(self.down[1](F.max_pool2d(top, 2)))
            if mode == "transposed":
                up = self.up(low)
            else:
                align = None if mode == "nearest" else False
                up = self.thin(F.interpolate(low, scale_factor=2, mode=mode, align_corners=align))
            return self.last(F.relu(self.merge(torch.cat([top, up], dim=1))))

    return UNet(), image(8, 1)


def feature_pyramid() -> Built:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bottom, self.top = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
            self.lateral, self.smooth = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            low = F.relu(self.bottom(x))
            high = F.relu(self.top(low))
            up = F.interpolate(high, size=low.shape[-2:], mode="nearest")
            return self.smooth(self.lateral(low) + up), high

    return Pyramid(), image(16)


def deeplab() -> Built:
    pooled = deeplabv3.ASPP(8, [2, 3], 4)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), pooled, nn.Conv2d(4, 2, 1)), image(13)


def autoencoder(convolutional: bool) -> Built:
    if not convolutional:
        layers = [nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 32), nn.Sigmoid()]
        return nn.Sequential(*layers), (torch.rand(1, 32),)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1),
        nn.Sigmoid(),
    ), image(16, 1)


def variational_autoencoder() -> Built:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.mean, self.log_var = (
                nn.Linear(16, 8), nn.Linear(8, 4), nn.Linear(8, 4)
            )  # fmt: skip
            self.decoder = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 16))

        def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
            hidden = F.relu(self.shared(x))
            mean, log_var = self.mean(hidden), self.log_var(hidden)
            return self.decoder(mean + noise * torch.exp(0.5 * log_var)), mean, log_var

    return Encoder(), (torch.rand(1, 16), torch.rand(1, 4))


def generator() -> Built:
    return nn.Sequential(
        nn.ConvTranspose2d(16, 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(True),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(True),
        nn.ConvTranspose2d(4, 1, 4, 2, 1, bias=False),
        nn.Tanh(),
    ), (torch.rand(1, 16, 1, 1),)


def discriminator() -> Built:
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, 2, 1),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 4),
        nn.Flatten(),
        nn.Sigmoid(),
    ), image(16, 1)


def super_resolution() -> Built:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1),
        nn.PixelShuffle(2),
    ), image(8, 1)


def style_transfer() -> Built:
    return nn.Sequential(
        nn.ReflectionPad2d(2),
        nn.Conv2d(3, 8, 5),
        nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.ReplicationPad2d(1),
        nn.Conv2d(8, 3, 3),
    ), image(8)


def squeeze_excitation() -> Built:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.squeeze, self.excite = nn.Linear(8, 2), nn.Linear(2, 8)
            self.last = nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.conv(x))
            gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
            x = x * gate[:, :, None, None]
            return self.last(x.amax(dim=(2, 3)))

    return Gate(), image(12)


def residual_dense() -> Built:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(4 + 4 * i, 4, 3, padding=1) for i in range(3)])
            self.fuse = nn.Conv2d(16, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = [x]
            for conv in self.convs:
                seen.append(F.leaky_relu(conv(torch.cat(seen, dim=1)), 0.2))
            return x + 0.2 * self.fuse(torch.cat(seen, dim=1))

    return Block(), image(8, 4)


def yolo_head() -> Built:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 14, 1)
            grid = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="xy"))
            self.register_buffer("grid", grid.permute(1, 2, 0)[None, None])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.head(F.max_pool2d(F.silu(self.conv(x)), 2))
            x = x.view(1, 2, 7, 4, 4).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
            place = (x[..., :2] * 2 - 0.5 + self.grid) * 4
            size = (x[..., 2:4] * 2) ** 2
            return torch.cat([place, size, x[..., 4:]], dim=-1).view(1, -1, 7)

    return Head(), image(16)


def spatial_pyramid() -> Built:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(16, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.first(x))
            pools = [F.max_pool2d(x, k, 1, k // 2) for k in (3, 5, 7)]
            return self.last(torch.cat([x, *pools], dim=1))

    return Pooled(), image(8)


def conv_3d() -> Built:
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Flatten(),
        nn.Linear(4 * 2 * 4 * 4, 10),
    ), (torch.rand(1, 1, 4, 8, 8),)


_CLASSIFIERS: dict[str, Callable[[], Built]] = {
    "lenet": lenet,
    "lenet_relu": lenet_relu,
    "alexnet": alexnet,
    "vgg": partial(vgg, False),
    "vgg_bn": partial(vgg, True),
    "resnet_basic": resnet_basic,
    "resnet_bottleneck": partial(resnet_bottleneck, 1),
    "resnext": partial(resnet_bottleneck, 4),
    "resnet_v2": resnet_preactivated,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet": efficient_net,
    "convnext": convnext,
    "inception": inception,
    "densenet": densenet,
    "squeezenet": squeeze_net,
    "shufflenet": shufflenet,
    "regnet": reg_net,
    "ghostnet": ghost_net,
    "squeeze_excitation": squeeze_excitation,
    "convmixer": lambda: (convmixer.ConvMixer(8, 1, 3, 4, num_classes=10), image(16)),
    "repvgg": lambda: (classified(byobnet.RepVggBlock(3, 8), width=8), image(8)),
    "conv3d": conv_3d,
}
_TRANSFORMERS: dict[str, Callable[[], Built]] = {
    "vit": vision_transformer,
    "swin": swin_transformer,
    "mlp_mixer": partial(mixer, mlp_mixer.MixerBlock),
    "resmlp": partial(mixer, mlp_mixer.ResBlock, mlp_ratio=2),
    "gmlp": partial(mixer, mlp_mixer.SpatialGatingBlock, mlp_ratio=2, mlp_layer=GatedMlp),
    "poolformer": lambda: (
        metaformer.MetaFormer(num_classes=10, depths=(1, 1), dims=(8, 16)),
        image(16),
    ),
}
_DENSE_PREDICTION: dict[str, Callable[[], Built]] = {
    "unet_nearest": partial(unet, "nearest"),
    "unet_bilinear": partial(unet, "bilinear"),
    "unet_transposed": partial(unet, "transposed"),
    "feature_pyramid": feature_pyramid,
    "deeplab": deeplab,
    "super_resolution": super_resolution,
    "style_transfer": style_transfer,
    "residual_dense": residual_dense,
    "yolo_head": yolo_head,
    "spatial_pyramid": spatial_pyramid,
}
_GENERATIVE: dict[str, Callable[[], Built]] = {
    "autoencoder": partial(autoencoder, False),
    "conv_autoencoder": partial(autoencoder, True),
    "vae": variational_autoencoder,
    "gan_generator": generator,
    "gan_discriminator": discriminator,
}

ARCHITECTURES: list[Architecture] = [
    *collected("image classifiers", _CLASSIFIERS),
    *collected("image transformers and mixers", _TRANSFORMERS),
    *collected("images from images", _DENSE_PREDICTION),
    *collected("autoencoders and generators", _GENERATIVE),
]
