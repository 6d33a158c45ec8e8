"""report.html: the page by which a person decides whether to ship a run's model.

    gather   a run's commits → one plain dict, the report's JSON (`hardmine report OUTPUT --json`)
    answer   that dict → the sentences of the first screen
    charts   that dict → Vega-Lite specifications, each with a table of the same figures
    page     all of it → one file that needs no network
    compare  two runs instead of one
    write    the command, and what a finished run does

Everything before `page` is plain values, so that a test can compare the page with them.
"""
