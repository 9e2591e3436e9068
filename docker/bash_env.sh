# Read by every bash that runs a script or -c in the image (BASH_ENV). SageMaker's SDK v3 starts a training job by bash and
# not by the image's entry point: a bash that is the container's first process, or the child of docker's own init, hands
# over to the entry point, which runs the same command as its child.
if [ $$ = 1 ] || [ "$PPID" = 1 ]; then
    mapfile -d '' -t kennel_command < "/proc/$$/cmdline"
    exec python3 -I -m kennel_image.entrypoint "${kennel_command[@]}"
fi
