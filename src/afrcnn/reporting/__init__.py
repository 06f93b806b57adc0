"""What is shown of results: tables on the screen."""

from afrcnn.reporting.table import ap_table

__all__ = ["ap_table"]
