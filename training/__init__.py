"""The training job: MNIST in, SavedModels out."""
