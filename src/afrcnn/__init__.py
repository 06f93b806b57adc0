"""afrcnn: object detectors trained against adversaries (A-Fast-RCNN, arXiv:1704.03414).

Each command of the command line is a function of the library:

====================  ========================================================================
``afrcnn shapes``     ``afrcnn.data.shapes.generate``
``afrcnn split``      ``afrcnn.data.splits.split_open_hidden``
``afrcnn proposals``  ``afrcnn.proposals.prepare.prepare``
``afrcnn train``      ``afrcnn.training.recipe.load_recipe``, ``afrcnn.training.train.train``
``afrcnn evaluate``   ``afrcnn.evaluation.detect.evaluate_run``
``afrcnn predict``    ``afrcnn.predict.predict``; for one array ``afrcnn.predict.detect_image``
``afrcnn masks``      ``afrcnn.masks.masks``; for one image ``afrcnn.masks.mask_objects``
``afrcnn stress``     ``afrcnn.evaluation.stress.stress_run``; for any detector ``stress_test``
``afrcnn report``     ``afrcnn.report.page.report``
====================  ========================================================================

Importing this package imports none of them, so that the command line answers at once.
"""

from afrcnn.errors import UserError

__version__ = "0.1.0"

__all__ = ["UserError", "__version__"]
