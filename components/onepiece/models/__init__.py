"""The models: tensors in, tensors out; no loss, optimiser, mode flag or HTTP."""
