"""What the classes that keep the settings of a call have in common."""


class Settings:
    """Shows its attributes, which are the arguments that it was made from."""

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"
