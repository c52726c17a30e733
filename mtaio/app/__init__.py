"""
The ``mtaio`` command, which comes with the extra ``app``.

`mtaio.app.cli` reads the command line. `mtaio.app.demo` is the main job of ``mtaio demo``, and an
example to copy from.
"""
