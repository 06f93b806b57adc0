"""Evaluation of detections: matching, VOC's and COCO's average precision, subsets, and the files of both."""
