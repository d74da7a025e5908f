"""The bundled bookshop: a small web shop, served from this machine, to practise crawling on."""
