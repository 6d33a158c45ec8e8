"""An export that is opened: checked against its stamp, searched, served over HTTP."""
