"""This package is the browser app: Gradio pages around pipelines. Gradio is imported in it alone."""
