"""The SDK's local mode."""
