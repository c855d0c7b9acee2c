"""Where attempts run: engines are interchangeable behind ``flyteish.interfaces.Engine``.

An engine starts, stops and watches, and reports what it saw; it judges nothing and knows no budgets.
"""
