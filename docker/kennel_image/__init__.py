"""What only the image needs: its entry point and the CUDA compatibility choice."""
