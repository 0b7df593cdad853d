from rdservice.worker.run import main

raise SystemExit(main())
