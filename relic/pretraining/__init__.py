"""Picture encoders, trained before they are frozen."""
