"""The examples in the docstrings of public functions run, and print what they say."""

import doctest

import pytest

import signsym_core as ss


def failures(function, name):
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
    assert example.examples, f"{name} has no example"
    return doctest.DocTestRunner().run(example).failed


@pytest.mark.parametrize("name", ["attack", "audit", "convert", "fine_tune"])
def test_the_example_of_a_public_function_runs(name):
    assert failures(getattr(ss, name), name) == 0


def test_an_example_that_prints_something_else_fails():
    def wrong():
        """One and one.

        >>> 1 + 1
        3
        """

    assert failures(wrong, "wrong") == 1
