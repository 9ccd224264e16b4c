"""What the feature engine is measured beside."""
