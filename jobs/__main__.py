"""`python -m jobs` is `hardmine`."""

from jobs.cli import main

main()
