"""Every adapter that reads a data set into events, by the name that the command line takes."""

from collections.abc import Callable, Mapping
from pathlib import Path

from onepiece.datasets.amazon_5core import read_amazon_5core
from onepiece.datasets.diginetica import read_diginetica
from onepiece.datasets.event_data import EventData
from onepiece.datasets.jdsearch import read_jdsearch
from onepiece.datasets.ml_1m import read_ml_1m
from onepiece.datasets.otto import read_otto
from onepiece.datasets.own import read_own
from onepiece.datasets.rees46 import read_rees46
from onepiece.datasets.retailrocket import read_retailrocket
from onepiece.datasets.trivago import read_trivago

ADAPTERS: Mapping[str, Callable[[Path], EventData]] = {
    "amazon-5core": read_amazon_5core,
    "diginetica": read_diginetica,
    "jdsearch": read_jdsearch,
    "ml-1m": read_ml_1m,
    "otto": read_otto,
    "own": read_own,
    "rees46": read_rees46,
    "retailrocket": read_retailrocket,
    "trivago": read_trivago,
}
"""Name -> function that opens the data set in a folder or file."""
