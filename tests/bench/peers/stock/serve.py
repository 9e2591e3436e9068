"""The container's entry point, as sagemaker-inference's README writes it. MMS_CONFIG: its file, which lies in /etc."""

import os

import handler_service
from sagemaker_inference import model_server

if __name__ == "__main__":
    model_server.MMS_CONFIG_FILE = os.environ.get("MMS_CONFIG", model_server.MMS_CONFIG_FILE)
    model_server.start_model_server(handler_service=handler_service.__name__)
