"""afrcnn: object detectors trained against adversaries (A-Fast-RCNN, arXiv:1704.03414).

Each command of the command line is a function of the library:

====================  ========================================================================
``afrcnn shapes``     ``afrcnn.data.shapes.generate``
``afrcnn split``      ``afrcnn.data.splits.split_open_hidden``
``afrcnn proposals``  ``afrcnn.commands.proposals.prepare``
``afrcnn train``      ``afrcnn.recipe.load_recipe``, ``afrcnn.training.train.train``
``afrcnn evaluate``   ``afrcnn.commands.evaluate.evaluate``
``afrcnn predict``    ``afrcnn.commands.predict.predict``; for one array ``afrcnn.commands.predict.detect_image``
``afrcnn masks``      ``afrcnn.commands.masks.masks``; for one image ``afrcnn.commands.masks.mask_objects``
``afrcnn stress``     ``afrcnn.commands.stress.stress``; for any detector ``afrcnn.robustness.benchmark.stress_test``
``afrcnn report``     ``afrcnn.reporting.page.report``
====================  ========================================================================

Importing this package imports none of them, so that the command line answers at once.
"""

from afrcnn.core.errors import UserError

__version__ = "0.1.0"

__all__ = ["UserError", "__version__"]
