"""What a person reads: readiness, Markdown, the page, what to log from now on."""
