"""``python -m dulian`` is the ``dulian`` command."""

from dulian.cli import main

main()
