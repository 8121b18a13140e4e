"""What a user did wrong, said in one line that names the file or key and the cure."""


class UserError(ValueError):
    """A fault outside the program: a missing folder, an unreadable file, another architecture's checkpoint."""

    exit_status = 1


class UsageError(UserError):
    """A fault in what was asked for: an unknown key, a grid that matches nothing, a flag's value."""

    exit_status = 2
