"""Networks of torchvision and timm: built for an image size, without their head, with published weights in place."""
