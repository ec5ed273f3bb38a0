# SPDX-License-Identifier: MIT
"""Control flow and miscellaneous instructions (PTX ISA 9.7.12 and 9.7.19)."""

TABLE = """
9.7.12.3 Control Flow Instructions: bra
bra{.uni}               target

9.7.12.4 Control Flow Instructions: brx.idx
brx.idx{.uni}           index, target

9.7.12.5 Control Flow Instructions: call
call{.uni}              {(returned), }function{, (arguments)}{, target}

9.7.12.6 Control Flow Instructions: ret
ret{.uni}

9.7.12.7 Control Flow Instructions: exit
exit

9.7.19.1 Miscellaneous Instructions: brkpt
brkpt

9.7.19.2 Miscellaneous Instructions: nanosleep
nanosleep.u32           t

9.7.19.3 Miscellaneous Instructions: pmevent
pmevent{.mask}          a

9.7.19.4 Miscellaneous Instructions: trap
trap

9.7.19.5 Miscellaneous Instructions: setmaxnreg
.action = inc dec
setmaxnreg.action.sync.aligned.u32 count
"""
