"""The web page over a zoo: what it is told, and who may ask.

`payloads` says what a page is told, as plain values that become JSON; `app` answers with them while
the page is open, and `site` writes them as files for any web server. The page itself is built from
`web/` into `page/`.
"""
