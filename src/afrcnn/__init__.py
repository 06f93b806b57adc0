"""afrcnn: object detectors trained against adversaries (A-Fast-RCNN, arXiv:1704.03414).

Each command of the command line is a function of the library:

====================  ========================================================================
``afrcnn shapes``     ``afrcnn.commands.shapes.shapes``
``afrcnn split``      ``afrcnn.commands.split.split``
``afrcnn proposals``  ``afrcnn.commands.proposals.proposals``
``afrcnn train``      ``afrcnn.recipe.load_recipe``, ``afrcnn.training.train.train``
``afrcnn evaluate``   ``afrcnn.evaluation.detect.evaluate_run``
``afrcnn predict``    ``afrcnn.commands.predict.predict``; for one array ``afrcnn.commands.predict.detect_image``
``afrcnn masks``      ``afrcnn.commands.masks.masks``; for one image ``afrcnn.adversaries.trace.trace_objects``
``afrcnn stress``     ``afrcnn.robustness.stress_run``; for any detector ``stress_test``
``afrcnn report``     ``afrcnn.commands.report.report``
====================  ========================================================================

Importing this package imports none of them, so that the command line answers at once.
"""

from afrcnn.core.errors import UserError

__version__ = "0.1.0"

__all__ = ["UserError", "__version__"]
