"""The documentation as a site, ``make docs``: the pages of docs/, those at the top of the repository, and a reference made from the code.

``hooks`` is what mkdocs calls. The rest needs no mkdocs, so that tests can ask it without building a site.
"""
