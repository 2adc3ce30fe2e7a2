from cg_cli.main import main

main()
