"""Pictures, reports and model cards."""
