"""The browser app: Gradio pages around pipelines. Gradio is imported below this package alone."""
