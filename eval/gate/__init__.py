"""Ship or not: from figures to checks, each with its threshold, its interval and one sentence. Nothing is measured here.

checks = make_checks(settings, figures)
passed(checks), verdict(checks)
"""
