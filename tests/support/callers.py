"""A process of the service with many callers: `callers.py ACCOUNT THREADS`.

Says `ready`, waits for a line on standard input, then asks for the account's access token in all threads at once and
prints a JSON list with what each got: a token, or the name of an exception.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from rdservice.config.settings import Settings
from rdservice.errors import RdServiceError
from rdservice.services import Services


def main(account_id: str, threads: int) -> None:
    services = Services.start(Settings.load(), name="callers")
    together = Barrier(threads)

    def ask(_: int) -> str:
        together.wait()
        try:
            return services.access_tokens.usable(account_id).access_token
        except RdServiceError as error:
            return type(error).__name__

    services.pool.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(threads) as executor:
        print(json.dumps(list(executor.map(ask, range(threads)))), flush=True)
    services.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
