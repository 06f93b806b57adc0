"""What is shown of results: tables on the screen."""

from afrcnn.report.table import ap_table

__all__ = ["ap_table"]
