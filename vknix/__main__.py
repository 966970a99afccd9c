from vknix.cli import main

raise SystemExit(main())
