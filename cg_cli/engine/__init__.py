"""From a clip to an answer: the pipeline, the policy around it, what an answer depends on, and what it took."""
