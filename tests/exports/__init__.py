"""What people's exporters write: networks made with torch, keras and scikit-learn, exported and planned."""
