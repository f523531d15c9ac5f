"""The Space of the metric: `evaluate`'s own widget."""

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("retrieval_recall.py"))
