# SPDX-License-Identifier: MIT
"""`python -m dynamo.tokenspeed`: start a worker."""

from dynamo_tokenspeed.worker.main import main

if __name__ == "__main__":
    main()
