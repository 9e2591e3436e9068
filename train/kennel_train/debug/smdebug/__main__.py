"""`python -m kennel_train.debug.smdebug FOLDER`: the rules on a folder that smdebug wrote."""

import sys

from kennel_train.debug.smdebug.offline import main

sys.exit(main())
