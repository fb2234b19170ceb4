"""The same film stored either way round gets the same mask on the same lung, and its sides are the patient's."""

from __future__ import annotations

import csv
import io
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from dicom_films import dataset, encoded, film
from reportseg.data.synthetic import draw_film
from reportseg.segmenter import Segmenter
