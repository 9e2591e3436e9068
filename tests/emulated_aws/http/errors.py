"""What AWS answers where it refuses."""


class AwsError(Exception):
    """An error code and its sentence, as a client reads them."""

    def __init__(self, code: str, message: str, status: int = 400, **members: object) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
        self.members = members  # what else the error's shape has


def invalid(message: str) -> AwsError:
    return AwsError("ValidationException", message)
