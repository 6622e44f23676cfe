"""What a model is measured against: rules without a model, and models of others."""
