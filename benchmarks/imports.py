"""How long ``import cyroialign`` takes, in a new process each time."""


class ImportSuiteBase:
    """Cold start counts: one import a process."""

    number = 1


class ImportSuite(ImportSuiteBase):
    """All of it, NumPy included."""

    def timeraw_import(self):
        return "import cyroialign"


class ImportNumpySuite(ImportSuiteBase):
    """The part that is NumPy's."""

    def timeraw_import_numpy(self):
        return "import numpy"
