"""What exporters write: networks of torch, keras and scikit-learn, exported and planned."""
