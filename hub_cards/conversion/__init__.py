"""Official checkpoints to Hub folders, and Hub folders to ONNX."""
