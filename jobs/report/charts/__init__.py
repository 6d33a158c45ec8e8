"""The charts of the page, each a Vega-Lite specification made from a report's figures."""
