"""The server of the page over a zoo: `app` answers, `security` says to whom."""
