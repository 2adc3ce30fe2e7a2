"""Training the audio-to-visual predictor from unlabelled clips, and finding the one that fits a model."""
